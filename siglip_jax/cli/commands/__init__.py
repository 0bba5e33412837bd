"""One file a subcommand, named as it is typed."""
