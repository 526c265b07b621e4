package kubernetes

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Values are what an installation is made of; chart/values.yaml has each with its
// default and its reason.
type Values map[string]any

// DefaultValues are those of the chart.
func DefaultValues() (Values, error) {
	data, err := fs.ReadFile(Files, "chart/values.yaml")
	if err != nil {
		return nil, err
	}
	var v Values
	return v, yaml.UnmarshalStrict(data, &v)
}

// Merge puts the values of a YAML file over v. source names it in errors. A value that the
// chart does not have, or one of another type, is an error: it would do nothing.
func (v Values) Merge(source string, data []byte) error {
	var over map[string]any
	if err := yaml.UnmarshalStrict(data, &over); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	return merge(source, "", v, over)
}

// Set sets one value: PATH=VALUE such as controlPlane.replicas=3. The value is read as YAML.
func (v Values) Set(assignment string) error {
	path, text, ok := strings.Cut(assignment, "=")
	if !ok || path == "" {
		return fmt.Errorf("--set %q: want PATH=VALUE, such as controlPlane.replicas=3", assignment)
	}
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		return fmt.Errorf("--set %s: %w", path, err)
	}
	steps := strings.Split(path, ".")
	for _, step := range slices.Backward(steps) {
		value = map[string]any{step: value}
	}
	return merge("--set", "", v, value.(map[string]any))
}

// open are the values whose fields are Kubernetes', not the chart's.
var open = []string{
	"controlPlane.resources", "controlPlane.nodeSelector", "injection.resources", "cni.resources",
	"ingress.resources", "ingress.nodeSelector", "ingress.serviceAnnotations",
}

func merge(source, at string, into, over map[string]any) error {
	for key, value := range over {
		path := strings.TrimPrefix(at+"."+key, ".")
		was, ok := into[key]
		free := slices.ContainsFunc(open, func(o string) bool { return at == o || strings.HasPrefix(at, o+".") })
		if !ok && !free {
			return fmt.Errorf("%s: there is no value %s; there are %s", source, path, strings.Join(slices.Sorted(keys(into)), ", "))
		}
		inner, isMap := value.(map[string]any)
		if old, ok := was.(map[string]any); ok && isMap {
			old = maps.Clone(old)
			if err := merge(source, path, old, inner); err != nil {
				return err
			}
			into[key] = old
			continue
		}
		if ok && !sameType(was, value) {
			return fmt.Errorf("%s: %s is %s; it must be a %s", source, path, shown(value), typeOf(was))
		}
		into[key] = value
	}
	return nil
}

func sameType(a, b any) bool { return typeOf(a) == typeOf(b) }

func typeOf(v any) string {
	switch v.(type) {
	case map[string]any:
		return "map"
	case []any:
		return "list"
	case bool:
		return "boolean"
	case float64, int64, int:
		return "number"
	case string:
		return "text"
	}
	return "value"
}

func shown(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}

func keys[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }
