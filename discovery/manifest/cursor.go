package manifest

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// reading is one Parse on its way: the options, the document at hand, what was found.
type reading struct {
	source string
	opts   Options
	line   int      // lines before the chunk that is read now
	ref    mesh.Ref // of the document at hand
	errs   Errors
}

// cursor is a place in a document: a node and the path to it.
type cursor struct {
	r    *reading
	node *yaml.Node
	path string
}

// errorf notes an error at the cursor.
func (c cursor) errorf(format string, args ...any) {
	c.r.errs.add(&Error{Source: c.r.source, Line: c.r.line + c.node.Line, Ref: c.r.ref,
		Field: c.path, Message: fmt.Sprintf(format, args...)})
}

// at is the place of a field. Where the document lacks it, errors get the line of the
// mapping around it.
func (c cursor) at(field string) cursor {
	inner := cursor{r: c.r, node: c.node, path: field}
	if c.path != "" {
		inner.path = c.path + "." + field
	}
	if c.node.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(c.node.Content); i += 2 {
			if c.node.Content[i].Value == field {
				inner.node = c.node.Content[i+1]
			}
		}
	}
	return inner
}

// index is the place of a list's element.
func (c cursor) index(i int) cursor {
	inner := cursor{r: c.r, node: c.node, path: fmt.Sprintf("%s[%d]", c.path, i)}
	if c.node.Kind == yaml.SequenceNode && i < len(c.node.Content) {
		inner.node = c.node.Content[i]
	}
	return inner
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// kindOf names what stands at a node, for "want X, found Y".
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		names := map[string]string{"!!str": "the text ", "!!int": "the number ", "!!float": "the number ",
			"!!bool": "", "!!timestamp": "the date ", "!!null": "nothing"}
		if name, ok := names[n.ShortTag()]; ok && !isNull(n) {
			return name + quote(n.Value)
		}
		if isNull(n) {
			return "nothing"
		}
		return "a value of type " + quote(n.Tag)
	}
	return "something else"
}
