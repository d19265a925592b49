"""The whole path on one machine: certificates, an OAuth server, a FHIR API, a real Envoy, authz, and a walk through."""
