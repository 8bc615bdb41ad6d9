"""Sharing artifacts and results: publish, verify, reproduce, contribute, students as model repositories.

Code that combines artifacts, their evaluations and the Hub belongs here.
"""
