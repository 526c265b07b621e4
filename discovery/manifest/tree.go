package manifest

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	// MaxObject is the largest document, in bytes, as in Kubernetes' API server.
	MaxObject = 1 << 20
	// maxDocuments of one input, empty ones included.
	maxDocuments = 50_000
	// maxDepth of nesting; the deepest kind has 10 levels.
	maxDepth = 32
)

// chunk is the text of one document and the number of lines before it.
type chunk struct {
	text []byte
	line int
}

// split cuts the input at its document markers. A line that begins with "---" or "..."
// ends a document wherever it stands (YAML 1.2, production c-forbidden), so that a
// document with an error of syntax hides none of the others.
func split(data []byte) []chunk {
	var out []chunk
	current := chunk{}
	line := 0
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n') + 1
		if end == 0 {
			end = len(data)
		}
		one := data[:end]
		data = data[end:]
		if marker(one) {
			out = append(out, current)
			// What follows the marker on its line belongs to the document it begins;
			// blanks in its place keep the columns.
			current = chunk{text: append([]byte("   "), one[3:]...), line: line}
		} else {
			current.text = append(current.text, one...)
		}
		line++
	}
	return append(out, current)
}

func marker(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("---")) && !bytes.HasPrefix(line, []byte("...")) {
		return false
	}
	return len(line) == 3 || strings.IndexByte(" \t\r\n", line[3]) >= 0
}

// readable checks that the input is text; it notes an error where it is not.
func (r *reading) readable(data []byte) bool {
	line := 1
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		wrong := ""
		switch {
		case c == utf8.RuneError && size == 1:
			wrong = fmt.Sprintf("the byte 0x%02x is not UTF-8; save the file as UTF-8", data[i])
		case c == '\n':
			line++
		case c == '\r', c == '\t':
		default:
			if _, bad := unprintable(string(c), false); bad && i > 0 {
				wrong = fmt.Sprintf("has the control character %U; remove it", c)
			}
		}
		if wrong != "" {
			r.errs.add(&Error{Source: r.source, Line: line, Message: wrong})
			return false
		}
		i += size
	}
	return true
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

// tree parses a chunk and refuses what makes YAML surprising. nil is a document with
// nothing in it, or one with errors, which are noted.
func (r *reading) tree(c chunk) *yaml.Node {
	r.line = c.line
	if len(c.text) > MaxObject {
		r.errs.add(&Error{Source: r.source, Line: c.line + 1,
			Message: fmt.Sprintf("the document has %d bytes; at most %d are allowed", len(c.text), MaxObject)})
		return nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(c.text, &doc); err != nil {
		r.syntaxError(c, err)
		return nil
	}
	if doc.Kind != yaml.DocumentNode || isNull(doc.Content[0]) {
		return nil
	}
	if !r.plain(doc.Content[0], 0) {
		return nil
	}
	return doc.Content[0]
}

func (r *reading) syntaxError(c chunk, err error) {
	m := syntaxLine.FindStringSubmatch(err.Error())
	line, message := 1, err.Error()
	if m != nil {
		message = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
	}
	for i, text := range bytes.Split(c.text, []byte("\n")) {
		indent := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]
		if bytes.IndexByte(indent, '\t') >= 0 {
			line, message = i+1, "a tab in the indentation; use spaces"
			break
		}
	}
	if bytes.HasPrefix(bytes.TrimSpace(c.text), []byte("%")) {
		message = "YAML directives are not supported; remove the line that begins with %"
	}
	r.errs.add(&Error{Source: r.source, Line: c.line + line, Message: "not YAML: " + message})
}

// plain checks a tree for aliases, which can make a small text a huge value, and depth.
func (r *reading) plain(n *yaml.Node, depth int) bool {
	wrong := ""
	switch {
	case n.Kind == yaml.AliasNode, n.Anchor != "":
		wrong = "anchors and aliases are not supported; write the value out"
	case depth > maxDepth:
		wrong = fmt.Sprintf("nested deeper than %d levels", maxDepth)
	}
	if wrong != "" {
		r.errs.add(&Error{Source: r.source, Line: r.line + n.Line, Message: wrong})
		return false
	}
	for _, inner := range n.Content {
		if !r.plain(inner, depth+1) {
			return false
		}
	}
	return true
}
