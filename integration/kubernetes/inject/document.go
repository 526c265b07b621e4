package inject

import (
	"encoding/json"
	"slices"

	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// Decode reads JSON as a document: whole numbers are int64, as nowhere else in JSON.
func Decode(data []byte) (map[string]any, error) {
	var out map[string]any
	return out, utiljson.Unmarshal(data, &out)
}

// plain is a typed value as a document has it.
func plain(v any) (map[string]any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return Decode(data)
}

// keys are what the elements of lists are told apart by, as in Kubernetes' own merging.
var keys = map[string]string{"env": "name", "volumeMounts": "mountPath", "ports": "containerPort", "volumes": "name"}

// merge puts the fields of want over those of have. What have says beyond that stays:
// defaults of the API server, the mounts and limits that its plugins add to every
// container, or what a user wants of the sidecar besides.
func merge(have, want map[string]any) {
	for name, value := range want {
		inner, isMap := value.(map[string]any)
		old, wasMap := have[name].(map[string]any)
		list, isList := value.([]any)
		oldList, wasList := have[name].([]any)
		switch {
		case isMap && wasMap:
			merge(old, inner)
		case isList && wasList:
			have[name] = mergeList(keys[name], oldList, list)
		default:
			have[name] = value
		}
	}
}

func mergeList(key string, have, want []any) []any {
	if key == "" && len(have) != len(want) {
		return want
	}
	out := slices.Clone(have)
	for i, value := range want {
		inner, ok := value.(map[string]any)
		at := i
		if key != "" && ok {
			at = slices.IndexFunc(out, func(item any) bool {
				m, _ := item.(map[string]any)
				return number(m[key]) == number(inner[key])
			})
		}
		if at < 0 {
			out = append(out, value)
		} else if old, _ := out[at].(map[string]any); old != nil && ok {
			merge(old, inner)
		} else {
			out[at] = value
		}
	}
	return out
}

// number makes one type of the numbers that JSON decoders make; other values stay.
func number(v any) any {
	switch n := v.(type) {
	case float64:
		return n
	case int64:
		return float64(n)
	case int:
		return float64(n)
	}
	return v
}

// clone copies what JSON is made of.
func clone[T any](v T) T {
	return cloneAny(v).(T)
}

func cloneAny(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, value := range v {
			out[name] = cloneAny(value)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, value := range v {
			out[i] = cloneAny(value)
		}
		return out
	}
	return v
}

// within is the mapping of a field, made where there is none.
func within(document map[string]any, field string) map[string]any {
	m, ok := document[field].(map[string]any)
	if !ok {
		m = map[string]any{}
		document[field] = m
	}
	return m
}

// mappings are the elements of a list that are mappings.
func mappings(document map[string]any, field string) []map[string]any {
	var out []map[string]any
	list, _ := document[field].([]any)
	for _, item := range list {
		if m, ok := item.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}
