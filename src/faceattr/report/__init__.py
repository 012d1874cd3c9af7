"""What a run or a sweep shows for itself: pictures (`plots`) and the table that ends a sweep (`leaderboard`)."""
