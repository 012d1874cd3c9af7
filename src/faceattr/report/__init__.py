"""What a run or a sweep shows: the report, its charts and image grids, and the leaderboard."""
