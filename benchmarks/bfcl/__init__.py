"""Function calls over HTTP, scored by the rules of the Berkeley Function Calling Leaderboard."""
