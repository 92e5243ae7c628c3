"""SLaM: can a small, self-hosted language model replace the proprietary one behind this feature?"""

__version__ = "0.1.0"
