"""kindsight: a folder of pictures in, a classifier you can trust out."""
