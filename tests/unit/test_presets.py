from __future__ import annotations

import re

import pytest

from slam_app.presets import PAPER_NOTE, Preset, current_models, hub_models, paper_models

# The paper's table of models, as printed: name, bits, parameters (B), size (GB), memory (MB).
PAPER_TABLE = """
llama2:7b-chat 4 7 3.8 6933
llama2:7b-chat-q2_K 2 7 2.8 5567
llama2:7b-chat-q3_K_L 3 7 3.6 6271
mistral:7b-instruct 4 7 4.1 4795
mistral:7b-instruct-q2_K 2 7 3.1 3897
mistral:7b-instruct-q3_K_L 3 7 3.8 4601
neural-chat:7b 4 7 4.1 5183
neural-chat:7b-v3.2-q2_K 2 7 3.1 4285
neural-chat:7b-v3.2-q3_K_L 3 7 3.8 4601
openchat:7b-v3.5 4 7 4.1 5183
openchat:7b-v3.5-q2_K 2 7 3.1 4285
openchat:7b-v3.5-q3_K_L 3 7 3.8 4989
orca-mini:3b 4 3 2 3089
orca2:7b 4 7 3.8 6527
orca2:7b-q2_K 2 7 2.8 5567
orca2:7b-q3_K_L 3 7 3.6 6271
stablelm-zephyr:3b 4 3 1.6 3443
stablelm-zephyr:3b-q2_K 2 3 1.2 3251
stablelm-zephyr:3b-q2_K_L 3 3 1.5 3507
starling-lm:7b 4 7 4.1 5183
starling-lm:7b-alpha-q2_K 2 7 3.1 4285
starling-lm:7b-alpha-q3_K_L 3 3 3.8 4989
vicuna:7b 4 7 3.8 5371
vicuna:7b-q2_K 2 7 2.8 4411
vicuna:7b-q2_K_L 4 3 3.6 5115
zephyr:7b-beta 4 7 4.1 5183
zephyr:7b-beta-q2_K 2 7 3.1 4285
zephyr:7b-beta-q3_K_L 3 7 3.8 4989
"""


def test_the_papers_list_is_exactly_as_printed() -> None:
    rows = [line.split() for line in PAPER_TABLE.split("\n") if line]
    assert len(rows) == 28
    assert list(paper_models()) == [
        Preset(name, int(bits), float(params), float(size), int(memory))
        for name, bits, params, size, memory in rows
    ]


def test_the_note_names_the_cells_that_look_wrong() -> None:
    for word in ("Starling", "Vicuna", "q2_K_L", "28"):
        assert word in PAPER_NOTE


@pytest.mark.parametrize("models", [current_models(), hub_models()], ids=["ollama", "hub"])
def test_current_lists_are_small_models_from_small_to_large_with_a_purpose(
    models: tuple[Preset, ...],
) -> None:
    assert len({model.name for model in models}) == len(models)
    assert [m.params_b for m in models] == sorted(m.params_b for m in models)
    for model in models:
        assert model.good_for
        assert model.memory_mb is None
        # Bits per weight, and more where embeddings (much of a tiny model) are kept finer.
        assert model.bits - 0.5 <= model.size_gb * 8 / model.params_b <= model.bits + 4.1


def test_names_have_the_form_that_their_server_pulls() -> None:
    assert len(current_models()) >= 12
    for model in current_models():
        assert re.fullmatch(r"[a-z0-9.-]+(:[0-9.]+b)?", model.name)
    assert len(hub_models()) >= 4
    for model in hub_models():
        assert re.fullmatch(r"[\w.-]+/[\w.-]+:[\w.-]+\.gguf", model.name)
        assert "instruct" in model.name.lower() or "-it-" in model.name
