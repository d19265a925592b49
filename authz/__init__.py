"""External authorization for health APIs behind Envoy: one Check decides who, with what right and how often."""
