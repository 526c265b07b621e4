package manifest

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The schema is Go structs. A field's tags are its rules:
//
//	json        its name, and how encoding/json writes it
//	field       its name where json is "-"
//	need        it must be there; the tag says what to give
//	is          a rule of textRules for a string, or for the strings of a list or map
//	keys        a rule of textRules for the keys of a map
//	in          the strings allowed, "A|B"
//	default     what a missing one means; for schemas only
//	min, max    of a number, of a string's bytes, or of a list's length
//	unsupported known to Kubernetes and not to heddle; the tag says what to do instead
//
// A struct with a check method is asked after its fields were read, whether or not they
// were right, about what goes beyond one field.
type checker interface{ check(c cursor) }

// ignored is a field that a server writes and a user may send back: it is skipped.
type ignored struct{}

// unsupported is a field that only exists to be refused with a good message.
type unsupported struct{}

// maxText bounds a string without a max tag, in bytes.
const maxText = 4096

func (c cursor) decode(v reflect.Value, tag reflect.StructTag) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		c.decode(v.Elem(), tag)
	case reflect.Interface:
		c.decode(v.Elem(), tag)
	case reflect.Struct:
		c.decodeStruct(v)
	case reflect.Slice:
		c.decodeList(v, tag)
	case reflect.Map:
		c.decodeMap(v, tag)
	case reflect.String:
		c.decodeText(v, tag)
	case reflect.Bool:
		if c.node.ShortTag() != "!!bool" {
			c.errorf("want true or false, found %s", kindOf(c.node))
			return
		}
		v.SetBool(strings.EqualFold(c.node.Value, "true"))
	default:
		c.decodeNumber(v, tag)
	}
}

// fieldName is how documents call a struct's field.
func fieldName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "-" {
		return f.Tag.Get("field")
	}
	return name
}

func (c cursor) decodeStruct(v reflect.Value) {
	if c.node.Kind != yaml.MappingNode {
		c.errorf("want a mapping with fields, found %s", kindOf(c.node))
		return
	}
	fields, known := make(map[string]int), []string(nil)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		fields[fieldName(f)] = i
		if f.Tag.Get("unsupported") == "" {
			known = append(known, fieldName(f))
		}
	}
	given := make(map[string]bool)
	for i := 0; i+1 < len(c.node.Content); i += 2 {
		key, value := c.node.Content[i], c.node.Content[i+1]
		name := key.Value
		if !c.plainKey(key, given) {
			continue
		}
		at := cursor{c.r, value, strings.TrimPrefix(c.path+"."+name, ".")}
		index, ok := fields[name]
		if !ok {
			at.path = strings.TrimPrefix(c.path+"."+clip(name), ".")
			cursor{c.r, key, at.path}.errorf("unknown field%s", Suggest(name, known))
			continue
		}
		at.decodeField(v.Field(index), v.Type().Field(index))
	}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if need := f.Tag.Get("need"); need != "" && (!given[fieldName(f)] || isNull(c.at(fieldName(f)).node)) {
			c.at(fieldName(f)).errorf("missing; give %s", need)
		}
	}
	if ch, ok := v.Addr().Interface().(checker); ok {
		ch.check(c)
	}
}

// decodeField reads one field of a struct. null is the same as leaving the field out.
func (c cursor) decodeField(v reflect.Value, f reflect.StructField) {
	switch {
	case f.Type == reflect.TypeFor[ignored](), isNull(c.node):
	case f.Type == reflect.TypeFor[unsupported]():
		c.errorf("not supported; %s", f.Tag.Get("unsupported"))
	default:
		c.decode(v, f.Tag)
	}
}

// plainKey reports whether a mapping's key is a word that has not been there before,
// and notes it in given.
func (c cursor) plainKey(key *yaml.Node, given map[string]bool) bool {
	at := cursor{c.r, key, strings.TrimPrefix(c.path+"."+clip(key.Value), ".")}
	switch {
	case key.Kind != yaml.ScalarNode:
		cursor{c.r, key, c.path}.errorf("a key is %s; use a word", kindOf(key))
		return false
	case key.ShortTag() != "!!str":
		at.errorf("the key is %s; write it in quotes if it is meant", kindOf(key))
		return false
	case given[key.Value] && c.path == "" && (key.Value == "apiVersion" || key.Value == "kind"):
		at.errorf("given twice; where another object begins, put a line with --- before it")
		return false
	case given[key.Value]:
		at.errorf("given twice; remove one of the two")
		return false
	}
	given[key.Value] = true
	return true
}

// clip keeps a path of the input short and printable.
func clip(name string) string {
	if _, bad := unprintable(name, false); bad || len(name) > 64 {
		return quote(name)
	}
	return name
}

func (c cursor) decodeList(v reflect.Value, tag reflect.StructTag) {
	if c.node.Kind != yaml.SequenceNode {
		c.errorf("want a list, found %s", kindOf(c.node))
		return
	}
	n := len(c.node.Content)
	least, most := limits(tag, 0, 1<<20)
	switch {
	case n < least:
		c.errorf("has %d elements; give at least %d, or leave the field out", n, least)
	case n > most:
		c.errorf("has %d elements; at most %d are allowed", n, most)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), n, n))
	// min and max are the list's, what is left of the tag is the elements'.
	element := reflect.StructTag(fmt.Sprintf(`is:%q in:%q`, tag.Get("is"), tag.Get("in")))
	if n := tag.Get("eachMin"); n != "" {
		element += reflect.StructTag(fmt.Sprintf(` min:%q max:%q`, n, tag.Get("eachMax")))
	}
	for i := range n {
		at := c.index(i)
		if isNull(at.node) {
			at.errorf("is empty; give a value or remove the dash")
			continue
		}
		at.decode(v.Index(i), element)
	}
}

// decodeMap reads a map of strings to strings.
func (c cursor) decodeMap(v reflect.Value, tag reflect.StructTag) {
	if c.node.Kind != yaml.MappingNode {
		c.errorf("want a mapping of words to words, found %s", kindOf(c.node))
		return
	}
	out, given := make(map[string]string), make(map[string]bool)
	for i := 0; i+1 < len(c.node.Content); i += 2 {
		key, value := c.node.Content[i], c.node.Content[i+1]
		if !c.plainKey(key, given) {
			continue
		}
		at := cursor{c.r, value, c.path + "." + clip(key.Value)}
		if wrong := textRules[tag.Get("keys")](key.Value); wrong != "" {
			at.errorf("%s", wrong)
			continue
		}
		var text string
		at.decodeText(reflect.ValueOf(&text).Elem(), tag)
		out[key.Value] = text
	}
	v.Set(reflect.ValueOf(out))
}
