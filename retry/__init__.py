"""The retry desk: the policy file, and the command line that lists, shows, replays and purges dead letters."""
