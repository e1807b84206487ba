"""A new site: what its own labelled films teach about a trained model, without training it."""
