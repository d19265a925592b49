package main

import (
	"strings"
	"testing"
)

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: one}
spec:
  template:
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: c
        image: i
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`

func TestRestricted(t *testing.T) {
	for name, one := range map[string]struct{ old, new, wrong string }{
		"restricted":        {"", "", ""},
		"root":              {"runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"},
		"no seccomp":        {", seccompProfile: {type: RuntimeDefault}", "", "seccompProfile"},
		"escalation":        {"allowPrivilegeEscalation: false, ", "", "allowPrivilegeEscalation"},
		"capabilities":      {"drop: [ALL]", "drop: [NET_RAW]", "unrestricted capabilities"},
		"host network":      {"spec:\n      security", "spec:\n      hostNetwork: true\n      security", "host namespaces"},
		"host path":         {"containers:", "volumes: [{name: v, hostPath: {path: /}}]\n      containers:", "hostPath"},
		"misspelt":          {"runAsNonRoot", "runAsNonroot", "runAsNonroot"},
		"init container":    {"containers:", "initContainers: [{name: i, image: i}]\n      containers:", "\"i\""},
		"nested in a List":  {"apiVersion: apps/v1", "apiVersion: v1\nitems: [{spec: {containers: [{name: x}]}}]", "\"x\""},
		"template of a job": {"spec:\n  template", "spec:\n jobTemplate:\n  template", ""},
	} {
		rendered := "kind: Service\nspec: {}\n---" + strings.Replace(deployment, one.old, one.new, 1)
		if one.new == one.old {
			rendered = deployment
		}
		pods, err := check(strings.NewReader(rendered))
		if one.wrong == "" && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if one.wrong != "" && (err == nil || !strings.Contains(err.Error(), one.wrong)) {
			t.Errorf("%s: got %v, expected %s", name, err, one.wrong)
		}
		if pods == 0 {
			t.Errorf("%s: no pod was found", name)
		}
	}
}

func TestNoPod(t *testing.T) {
	if pods, err := check(strings.NewReader("kind: Service\nspec: {}\n")); pods != 0 || err != nil {
		t.Errorf("%d pods, %v", pods, err)
	}
}
