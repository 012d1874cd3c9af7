"""The web application of `faceattr serve`: a page and a JSON API around one model. `app.py` puts its parts together."""
