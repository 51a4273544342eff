"""What comes out: the schema of reports, summaries, leaderboards, figures."""
