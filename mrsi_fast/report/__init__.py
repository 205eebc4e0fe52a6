"""What a person looks at after a run: pictures of the maps and the sentences beside them."""
