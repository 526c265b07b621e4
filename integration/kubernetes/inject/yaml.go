package inject

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	kubeyaml "sigs.k8s.io/yaml"
)

// documentText is one document of a file, with the marker before it, as it is written.
type documentText struct {
	text []byte
	line int // where it begins, from 1
}

func (d documentText) marked() bool { return bytes.HasPrefix(d.text, []byte("---")) }

// splitDocuments cuts a file before each line that begins with "---": such a line begins a
// document wherever it stands (YAML 1.2, production c-forbidden).
func splitDocuments(data []byte) []documentText {
	var out []documentText
	current := documentText{line: 1}
	line := 0
	for text := range bytes.Lines(data) {
		line++
		rest, marker := bytes.CutPrefix(text, []byte("---"))
		if marker && (len(rest) == 0 || strings.ContainsRune(" \t\r\n", rune(rest[0]))) && line > 1 {
			out = append(out, current)
			current = documentText{line: line}
		}
		current.text = append(current.text, text...)
	}
	return append(out, current)
}

// rewrite gives the text of a document after the changes. It keeps comments, order and style
// where the outcome reads as it should: not where a change of one place would be one of
// another (anchors), of a key that means another to kubectl, which reads YAML 1.1 (yes is
// true, <<: has the keys of its value), or where the encoder loses something.
func rewrite(text []byte, value map[string]any, edits []Operation) ([]byte, error) {
	plain, err := kubeyaml.Marshal(value)
	if err != nil {
		return nil, err
	}
	if plain, err = editText(plain, edits); err != nil {
		return nil, err
	}
	want, err := kubeyaml.YAMLToJSONStrict(plain)
	if err != nil {
		return nil, err
	}
	kept, err := editText(text, edits)
	if err != nil {
		return plain, nil
	}
	if got, err := kubeyaml.YAMLToJSONStrict(kept); err != nil || !bytes.Equal(got, want) {
		return plain, nil
	}
	return kept, nil
}

// editText makes changes in the tree of a document.
func editText(text []byte, edits []Operation) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	for _, o := range edits {
		if err := applyTo(document.Content[0], o); err != nil {
			return nil, fmt.Errorf("change %s: %w", o.Path, err)
		}
	}
	if document.Content[0].Style&yaml.FlowStyle != 0 { // JSON
		return asJSON(&document)
	}
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if compact(&document) {
		e.CompactSeqIndent()
	}
	if err := e.Encode(&document); err != nil {
		return nil, err
	}
	return out.Bytes(), e.Close()
}

func asJSON(document *yaml.Node) ([]byte, error) {
	var value any
	if err := document.Decode(&value); err != nil {
		return nil, err
	}
	out, err := json.MarshalIndent(value, "", "  ")
	return append(out, '\n'), err
}

// compact tells whether the first list of a document stands below its key, not right of it.
func compact(n *yaml.Node) bool {
	found, out := false, true
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		for i, inner := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 1 && inner.Kind == yaml.SequenceNode && inner.Style&yaml.FlowStyle == 0 && inner.Column > 0 && !found {
				found, out = true, inner.Column <= n.Content[i-1].Column
			}
			walk(inner)
		}
	}
	walk(n)
	return out
}

// applyTo makes one change in a tree.
func applyTo(n *yaml.Node, o Operation) error {
	steps := strings.Split(strings.TrimPrefix(o.Path, "/"), "/")
	unescape := strings.NewReplacer("~1", "/", "~0", "~")
	for _, step := range steps[:len(steps)-1] {
		inner, _ := child(n, unescape.Replace(step))
		if inner == nil {
			return fmt.Errorf("there is no %s", step)
		}
		n = inner
	}
	last := unescape.Replace(steps[len(steps)-1])
	before, at := child(n, last)
	if o.Op == "remove" {
		if before == nil {
			return fmt.Errorf("there is no %s", last)
		}
		n.Content = slices.Delete(n.Content, at-1, at+1) // only of mappings
		return nil
	}
	value, err := nodeOf(o.Value)
	if err != nil {
		return err
	}
	switch {
	case n.Kind == yaml.SequenceNode && o.Op == "add":
		n.Content = slices.Insert(n.Content, at, value)
	case before != nil:
		value.HeadComment, value.LineComment, value.FootComment = before.HeadComment, before.LineComment, before.FootComment
		*before = *value
	default:
		key := new(yaml.Node)
		key.SetString(last)
		n.Content = append(n.Content, key, value)
	}
	return nil
}

// child finds an element of a mapping or a list, and its place among the contents.
func child(n *yaml.Node, step string) (*yaml.Node, int) {
	if n.Kind == yaml.SequenceNode {
		i, err := strconv.Atoi(step)
		if err != nil || i >= len(n.Content) {
			return nil, len(n.Content)
		}
		return n.Content[i], i
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == step {
			return n.Content[i+1], i + 1
		}
	}
	return nil, 0
}

// nodeOf is a value in block style.
func nodeOf(data []byte) (*yaml.Node, error) {
	var value any
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&value); err != nil {
		return nil, err
	}
	n := new(yaml.Node)
	return n, n.Encode(whole(value))
}

// whole makes whole numbers of JSON integers again, which YAML would write as 1.5021e+04.
func whole(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			v[name] = whole(value)
		}
	case []any:
		for i, value := range v {
			v[i] = whole(value)
		}
	case float64:
		if n := int64(v); float64(n) == v {
			return n
		}
	}
	return v
}
