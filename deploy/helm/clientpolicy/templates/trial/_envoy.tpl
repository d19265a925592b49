{{/* Envoy's bootstrap; docs/envoy.md says why each line is there. */}}
{{- define "clientpolicy.gateway.bootstrap" -}}
{{- $full := include "clientpolicy.fullname" . -}}
{{- $namespace := .Release.Namespace -}}
node: {id: gateway, cluster: gateway}
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: 9901}}
static_resources:
  listeners:
  - name: https
    address: {socket_address: {address: "::", ipv4_compat: true, port_value: 8443}}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_params:
              tls_minimum_protocol_version: TLSv1_2
              tls_maximum_protocol_version: TLSv1_3
              cipher_suites: [ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-ECDSA-CHACHA20-POLY1305, ECDHE-RSA-AES128-GCM-SHA256, ECDHE-RSA-CHACHA20-POLY1305]
            tls_certificates:
            - certificate_chain: {filename: /etc/envoy/tls/tls.crt}
              private_key: {filename: /etc/envoy/tls/tls.key}
            validation_context_sds_secret_config:   # read again when the operator rotates its CA
              name: clients
              sds_config: {resource_api_version: V3, path_config_source: {path: /etc/envoy/config/clients.yaml}}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: https
          use_remote_address: true
          forward_client_cert_details: SANITIZE_SET
          set_current_client_cert_details: {subject: true, cert: true, dns: true, uri: true}
          path_with_escaped_slashes_action: KEEP_UNCHANGED   # ambiguous paths go to authz, which refuses them
          http_filters:
          - name: envoy.filters.http.ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              transport_api_version: V3
              failure_mode_allow: false
              status_on_error: {code: ServiceUnavailable}
              include_peer_certificate: true
              grpc_service:
                timeout: 1s
                envoy_grpc: {cluster_name: authz}
                # Only what no authz has begun to judge: a Check asked twice would be counted twice.
                # At another pod: one whose container was killed refuses connections until its health check has failed twice.
                retry_policy:
                  num_retries: 2
                  retry_on: connect-failure,refused-stream
                  host_selection_retry_max_attempts: 5
                  retry_host_predicate:
                  - name: envoy.retry_host_predicates.previous_hosts
                    typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            name: api
            virtual_hosts:
            - name: api
              domains: ["*"]
              routes:
              # Another server than the FHIR API's: whatever this path is read as, no patient is behind it.
              - match: {prefix: /auth/}
                route: {cluster: oauth, prefix_rewrite: /}
                typed_per_filter_config:
                  envoy.filters.http.ext_authz:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                    disabled: true
              - match: {prefix: /}
                route: {cluster: fhir}
          access_log:
          - name: envoy.access_loggers.stdout
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
              log_format:
                json_format:
                  time: "%START_TIME%"
                  method: "%REQ(:METHOD)%"
                  path: "%REQ(:PATH)%"
                  status: "%RESPONSE_CODE%"
                  flags: "%RESPONSE_FLAGS%"
                  duration_ms: "%DURATION%"
                  authz: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz)%"
  # For the pod's startup probe: 200 when authz can be asked, so that `helm install --wait` ends where calls are answered.
  - name: started
    address: {socket_address: {address: "::", ipv4_compat: true, port_value: 8444}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: started
          http_filters:
          - name: envoy.filters.http.health_check
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
              pass_through_mode: false
              cluster_min_healthy_percentages: {authz: {value: 1}, fhir: {value: 1}, oauth: {value: 1}}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config: {name: none}
  clusters:
  - name: authz
    # Every pod by its own address: the calls are spread, and a pod that ends is left.
    type: STRICT_DNS
    connect_timeout: 0.5s
    dns_refresh_rate: 1s
    respect_dns_ttl: false
    ignore_health_on_host_removal: true
    circuit_breakers: {thresholds: [{max_retries: 1024}]}   # of 3, a pod that refuses connections takes most calls with it
    health_checks:
    - {timeout: 1s, interval: 1s, no_traffic_interval: 1s, unhealthy_threshold: 2, healthy_threshold: 1, grpc_health_check: {}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {connection_keepalive: {interval: 2s, timeout: 1s}}}
    load_assignment:
      cluster_name: authz
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: {{ $full }}-authz-headless.{{ $namespace }}.svc, port_value: 9191}}}}]}]
    {{- if .Values.authz.tls.existingSecret }}
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {{ $full }}-authz.{{ $namespace }}.svc
        common_tls_context:
          alpn_protocols: [h2]   # which gRPC insists on, and health checks would not offer by themselves
          {{- if .Values.authz.tls.mutual }}
          tls_certificates: [{certificate_chain: {filename: /etc/envoy/authz-tls/tls.crt}, private_key: {filename: /etc/envoy/authz-tls/tls.key}}]
          {{- end }}
          validation_context:
            trusted_ca: {filename: /etc/envoy/authz-tls/ca.crt}
            match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: {{ $full }}-authz.{{ $namespace }}.svc}}]
    {{- end }}
  - name: fhir
    type: STRICT_DNS
    connect_timeout: 1s
    load_assignment:
      cluster_name: fhir
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: {{ $full }}-trial.{{ $namespace }}.svc, port_value: 8080}}}}]}]
  - name: oauth
    type: STRICT_DNS
    connect_timeout: 1s
    load_assignment:
      cluster_name: oauth
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: {{ $full }}-trial.{{ $namespace }}.svc, port_value: 8081}}}}]}]
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {{ $full }}-trial.{{ $namespace }}.svc
        common_tls_context:
          validation_context:
            trusted_ca: {filename: /etc/envoy/tls/ca.crt}
            match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: {{ $full }}-trial.{{ $namespace }}.svc}}]
{{- end }}

{{- define "clientpolicy.gateway.clients" -}}
resources:
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: clients
  validation_context:
    trusted_ca: {filename: /etc/envoy/trust/ca.crt}
    watched_directory: {path: /etc/envoy/trust}
{{- end }}
