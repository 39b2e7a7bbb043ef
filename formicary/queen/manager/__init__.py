"""What people ask for: definitions, submissions, commands, views. Writes rows, answers; decides nothing about running jobs."""
