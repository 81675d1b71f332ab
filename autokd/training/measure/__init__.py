"""Measurements of a student: COCO AP, validation loss, CKA with the teacher."""
