"""Exchange with others: publish, verify, reproduce, contribute, students as model repositories.

Enters what joins an artifact, its evaluations and the Hub.
"""
