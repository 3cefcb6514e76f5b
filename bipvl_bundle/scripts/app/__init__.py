"""A web page on which words are changed and the mask is seen to change."""
