"""Where training and drawing meet: learn, the demo, previews."""
