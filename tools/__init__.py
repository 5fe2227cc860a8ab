"""The command lines: each runs as a script from a checkout, and as ssl_backbones.tools.* once installed."""
