"""What people ask for: definitions, submissions, commands, views.

Writes rows and answers; decides nothing about running jobs.
"""
