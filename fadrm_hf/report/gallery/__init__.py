"""The gallery of an artifact: a page that shows its images, their origin, and what was measured with them.

It is a folder of static files that works from disk and from a server, and fetches nothing from elsewhere.
"""
