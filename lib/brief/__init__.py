"""The brief: `project.yaml`, read and validated."""
