"""Files on local disks, at addresses of fsspec (``s3://bucket/photos/``) and in tar files.

Nothing is imported or fetched for local paths.
"""
