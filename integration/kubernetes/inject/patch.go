package inject

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Operation is one step of a JSON patch (RFC 6902).
type Operation struct {
	Op    string          `json:"op"` // add, replace or remove
	Path  string          `json:"path"`
	Value json.RawMessage `json:"value,omitempty"`
}

// Patch is what makes the document after of the document before. It names no more than
// what is different, so that it reads well in an audit log.
func Patch(before, after any) ([]Operation, error) {
	p := new(patcher)
	p.value("", before, after)
	return p.out, p.err
}

type patcher struct {
	out []Operation
	err error
}

func (p *patcher) add(op, path string, value any) {
	o := Operation{Op: op, Path: path}
	if op != "remove" {
		data, err := json.Marshal(value)
		if err != nil {
			p.err = err
		}
		o.Value = data
	}
	p.out = append(p.out, o)
}

func (p *patcher) value(path string, before, after any) {
	was, isMap := before.(map[string]any)
	is, isMap2 := after.(map[string]any)
	had, isList := before.([]any)
	has, isList2 := after.([]any)
	switch {
	case reflect.DeepEqual(before, after):
	case isMap && isMap2:
		p.fields(path, was, is)
	case isList && isList2 && subsequence(had, has):
		p.elements(path, had, has)
	default:
		p.add("replace", path, after)
	}
}

func (p *patcher) fields(path string, before, after map[string]any) {
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[name]; !ok {
			p.add("remove", path+"/"+escape.Replace(name), nil)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		at := path + "/" + escape.Replace(name)
		if was, ok := before[name]; ok {
			p.value(at, was, after[name])
		} else {
			p.add("add", at, after[name])
		}
	}
}

// elements walks two lists of which the second has everything of the first, in its order.
func (p *patcher) elements(path string, before, after []any) {
	for i, element := range after {
		at := path + "/" + strconv.Itoa(i)
		if len(before) > 0 && same(before[0], element) {
			p.value(at, before[0], element)
			before = before[1:]
		} else {
			p.add("add", at, element)
		}
	}
}

func subsequence(before, after []any) bool {
	for _, element := range after {
		if len(before) > 0 && same(before[0], element) {
			before = before[1:]
		}
	}
	return len(before) == 0
}

// same tells whether two elements are the same thing, perhaps changed: containers,
// volumes and variables have names.
func same(a, b any) bool {
	before, ok := a.(map[string]any)
	after, ok2 := b.(map[string]any)
	if ok && ok2 && before["name"] != nil {
		return before["name"] == after["name"]
	}
	return reflect.DeepEqual(a, b)
}
