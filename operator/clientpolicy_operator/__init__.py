"""The operator: a ClientPolicy becomes a certificate, checked quotas and an honest status."""
