"""The subcommands of `pointsman`: each module adds its part of the command line and does its work."""
