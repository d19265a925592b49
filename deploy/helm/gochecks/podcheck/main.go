// Podcheck tells whether every pod of a rendering, read from standard input, is what Pod Security calls restricted.
//
// It asks the code that a cluster's admission runs. No pod at all is an error, too: nothing would have been looked at.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	strict "sigs.k8s.io/json"
)

var restricted = api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}

func main() {
	pods, err := check(os.Stdin)
	if err == nil && pods == 0 {
		err = errors.New("no pod in what was rendered")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(pods, "restricted pods")
}

// check returns how many pods there are, or every violation of theirs.
func check(rendered io.Reader) (pods int, err error) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return 0, err
	}
	var wrong []error
	documents := yaml.NewYAMLOrJSONDecoder(rendered, 4096)
	for {
		var object map[string]any
		if err := documents.Decode(&object); errors.Is(err, io.EOF) {
			return pods, errors.Join(wrong...)
		} else if err != nil {
			return pods, err
		}
		where := fmt.Sprint(object["kind"], " ", named(object))
		for _, found := range templates(object) {
			pods++
			pod, err := read(found)
			if err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %w", where, err))
				continue
			}
			results := evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec)
			if verdict := policy.AggregateCheckResults(results); !verdict.Allowed {
				wrong = append(wrong, fmt.Errorf("%s: %s", where, verdict.ForbiddenDetail()))
			}
		}
	}
}

// templates returns whatever has a spec with containers, at any depth: a Pod, or the template in a Deployment, a CronJob
// or a kind that nobody thought of here.
func templates(value any) (found []map[string]any) {
	switch value := value.(type) {
	case map[string]any:
		if spec, ok := value["spec"].(map[string]any); ok && spec["containers"] != nil {
			return append(found, value)
		}
		for _, inner := range value {
			found = append(found, templates(inner)...)
		}
	case []any:
		for _, inner := range value {
			found = append(found, templates(inner)...)
		}
	}
	return found
}

// read returns the pod; a key that Kubernetes does not know would be dropped in silence, so it is an error.
func read(found map[string]any) (pod corev1.Pod, err error) {
	text, err := json.Marshal(found)
	if err != nil {
		return pod, err
	}
	unknown, err := strict.UnmarshalStrict(text, &pod)
	return pod, errors.Join(append(unknown, err)...)
}

func named(object map[string]any) any {
	metadata, _ := object["metadata"].(map[string]any)
	return metadata["name"]
}
