package manifest

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// A validation is a rule of a struct that goes beyond one field, in CEL as Kubernetes
// evaluates it; the struct's check method says the same with more words.
type validation struct{ rule, message string }

// validated is a struct with such rules.
type validated interface{ validations() []validation }

// Schema gives the OpenAPI schema of a kind's spec, as a CustomResourceDefinition holds it:
// what Parse checks, as far as a schema can say it. Describe gives the description of a
// field by its path, such as "rules[].from[].namespace".
func Schema(of mesh.Kind, describe func(path string) string) (map[string]any, error) {
	k, ok := kinds[of]
	if !ok {
		return nil, fmt.Errorf("there is no kind %q", of)
	}
	return schemaOf(k.spec, "", "", describe)
}

func schemaOf(t reflect.Type, tag reflect.StructTag, path string, describe func(string) string) (out map[string]any, err error) {
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), tag, path, describe)
	case reflect.Struct:
		out, err = structSchema(t, path, describe)
	case reflect.Slice:
		var items map[string]any
		items, err = schemaOf(t.Elem(), reflect.StructTag(fmt.Sprintf("is:%q min:%q max:%q", tag.Get("is"), tag.Get("eachMin"), tag.Get("eachMax"))), path+"[]", describe)
		out = map[string]any{"type": "array", "items": items}
		bound(out, tag, "minItems", "maxItems")
	case reflect.String:
		out = textSchema(tag)
	case reflect.Bool:
		out = map[string]any{"type": "boolean"}
	case reflect.Float64:
		out = map[string]any{"type": "number"}
		bound(out, tag, "minimum", "maximum")
	case reflect.Uint16, reflect.Uint32, reflect.Int32, reflect.Int64:
		out = map[string]any{"type": "integer", "format": "int64"}
		bound(out, tag, "minimum", "maximum")
	default:
		err = fmt.Errorf("%s: a schema has no %s", path, t)
	}
	if text := describe(path); text != "" && out != nil && !strings.HasSuffix(path, "[]") {
		out["description"] = text
	}
	return out, err
}

func structSchema(t reflect.Type, path string, describe func(string) string) (map[string]any, error) {
	properties, required := map[string]any{}, []any{}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("unsupported") != "" || f.Type == reflect.TypeFor[ignored]() {
			continue
		}
		name := fieldName(f)
		property, err := schemaOf(f.Type, f.Tag, strings.TrimPrefix(path+"."+name, "."), describe)
		if err != nil {
			return nil, err
		}
		properties[name] = property
		if f.Tag.Get("need") != "" {
			required = append(required, name)
		}
	}
	out := map[string]any{"type": "object", "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	if v, ok := reflect.New(t).Interface().(validated); ok {
		var rules []any
		for _, one := range v.validations() {
			rules = append(rules, map[string]any{"rule": one.rule, "message": one.message})
		}
		out["x-kubernetes-validations"] = rules
	}
	return out, nil
}

// patterns are the rules for strings that a schema can say.
var patterns = map[string]struct {
	pattern string
	longest int
}{
	"label1123": {label1123.String(), 63},
	"label1035": {label1035.String(), 63},
	"subdomain": {subdomain.String(), 253},
	"duration":  {durationForm.String(), 28}, // four numbers of five digits, with their units
	"identity":  {`^spiffe://`, 2048},
}

func textSchema(tag reflect.StructTag) map[string]any {
	out := map[string]any{"type": "string"}
	if in := tag.Get("in"); in != "" {
		values := []any{}
		for v := range strings.SplitSeq(in, "|") {
			values = append(values, v)
		}
		out["enum"] = values
		if value := tag.Get("default"); value != "" {
			out["default"] = value
		}
		return out
	}
	if tag.Get("is") == "coreGroup" {
		out["enum"] = []any{""}
		return out
	}
	if p, ok := patterns[tag.Get("is")]; ok {
		out["pattern"] = p.pattern
		if p.longest > 0 {
			out["maxLength"] = p.longest
		}
		return out
	}
	out["maxLength"] = maxText
	return out
}

// bound sets the limits that tags give.
func bound(out map[string]any, tag reflect.StructTag, least, most string) {
	for name, key := range map[string]string{"min": least, "max": most} {
		if n, err := strconv.Atoi(tag.Get(name)); err == nil {
			out[key] = n
		}
	}
}
