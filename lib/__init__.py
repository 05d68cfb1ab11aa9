"""Helpers of the open-model selection playbook: one noun per module, `from lib import legal`."""
