"""Answers for any number of pictures, on one machine or many: Apache Beam.

`jobs` says what a job is and what of it is left, `pipeline` lets Beam do it,
`places` are files and folders where Beam finds them.
"""

from kanets.scale.jobs import predict_many

__all__ = ["predict_many"]
