package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// maxErrors is how many errors one Parse reports; a file of noise needs no more.
const maxErrors = 200

// Error is one thing wrong in a document. Message says what, and how to put it right.
type Error struct {
	Source string   // the file, or how the caller called the input
	Line   int      // from 1; 0 = the input as a whole
	Ref    mesh.Ref // as far as the document says what it is
	Field  string   // a path such as spec.rules[0].backendRefs[1].weight, or ""
	// Message is what is wrong and a fix.
	Message string
}

// Error is "SOURCE:LINE: KIND NAMESPACE/NAME: FIELD: MESSAGE" without the unknown parts.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Source != "" {
		b.WriteString(e.Source)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
		b.WriteString(": ")
	} else if e.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", e.Line)
	}
	if e.Ref.Kind != "" {
		name := e.Ref.Name.Name
		if e.Ref.Namespace != "" {
			name = e.Ref.Namespace + "/" + name
		}
		fmt.Fprintf(&b, "%s %s: ", e.Ref.Kind, name)
	}
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Message)
	return b.String()
}

// Errors is everything found wrong in one input, in the order of its lines.
type Errors []*Error

// Error gives one error a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// add appends an error, up to maxErrors and a last one that says so.
func (e *Errors) add(one *Error) {
	switch {
	case len(*e) < maxErrors:
		*e = append(*e, one)
	case len(*e) == maxErrors:
		*e = append(*e, &Error{Source: one.Source, Line: one.Line,
			Message: fmt.Sprintf("more than %d errors; repair these first", maxErrors)})
	}
}

func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
}
