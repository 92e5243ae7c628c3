"""Human evaluation: `design` assigns screens to raters, `studies` launches, `session` serves a rater."""
