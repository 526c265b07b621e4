package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// A network's configuration is others': we put our plugin at the end of its list and take
// it out again byte by byte, and everything else stays as it is written.

// element is where a plugin stands in the text of a configuration.
type element struct {
	from, to int
	ours     bool
}

// chain puts our plugin into a configuration, in place of one of ours that is there. A
// configuration that has exactly this is given back as it is.
func chain(list []byte, own entry) ([]byte, error) {
	text, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}
	elements, err := plugins(list)
	if err != nil {
		return nil, err
	}
	ours := slices.DeleteFunc(slices.Clone(elements), func(e element) bool { return !e.ours })
	if len(ours) == len(elements) {
		return nil, errors.New(`"plugins" has none that makes a network`)
	}
	if len(ours) == 1 && !elements[0].ours && bytes.Equal(list[ours[0].from:ours[0].to], text) {
		return list, nil
	}
	if list, err = unchain(list); err != nil {
		return nil, err
	}
	if elements, err = plugins(list); err != nil {
		return nil, err
	}
	last := elements[len(elements)-1]
	before := bytes.TrimRight(list[:last.from], " \t\r\n") // up to a comma or the bracket
	space := list[len(before):last.from]
	return slices.Concat(list[:last.to], []byte(","), space, text, list[last.to:]), nil
}

// unchain takes our plugin out.
func unchain(list []byte) ([]byte, error) {
	for {
		elements, err := plugins(list)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(elements, func(e element) bool { return e.ours })
		switch {
		case i < 0:
			return list, nil
		case i > 0: // with the comma before it
			list = slices.Concat(list[:elements[i-1].to], list[elements[i].to:])
		case len(elements) > 1: // with the comma after it
			list = slices.Concat(list[:elements[0].from], list[elements[1].from:])
		default:
			list = slices.Concat(list[:elements[0].from], list[elements[0].to:])
		}
	}
}

// plugins finds the elements of the list "plugins".
func plugins(list []byte) ([]element, error) {
	d := json.NewDecoder(bytes.NewReader(list))
	if err := delimiter(d, '{', "the configuration"); err != nil {
		return nil, err
	}
	var out []element
	found := false
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		if name != "plugins" {
			if err := d.Decode(new(json.RawMessage)); err != nil {
				return nil, err
			}
			continue
		}
		if found {
			return nil, errors.New(`"plugins" stands twice`)
		}
		found = true
		if out, err = elements(d); err != nil {
			return nil, err
		}
	}
	if err := delimiter(d, '}', "the configuration"); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something stands after the configuration")
	}
	if !found {
		return nil, errors.New(`it has no list "plugins": nothing can be chained to the configuration of a single plugin; make a list of it (.conflist)`)
	}
	return out, nil
}

// elements reads the value of "plugins".
func elements(d *json.Decoder) (out []element, err error) {
	if err := delimiter(d, '[', `"plugins"`); err != nil {
		return nil, err
	}
	for d.More() {
		var text json.RawMessage
		if err := d.Decode(&text); err != nil {
			return nil, err
		}
		var plugin struct{ Type string }
		if err := json.Unmarshal(text, &plugin); err != nil || plugin.Type == "" {
			return nil, fmt.Errorf(`element %d of "plugins" is not an object with a "type"`, len(out)+1)
		}
		to := int(d.InputOffset())
		out = append(out, element{to - len(text), to, plugin.Type == Name})
	}
	return out, delimiter(d, ']', `"plugins"`)
}

func delimiter(d *json.Decoder, want json.Delim, of string) error {
	token, err := d.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("%s: %w", of, err)
	}
	if token != want {
		return fmt.Errorf("%s: %v in place of %q", of, token, want.String())
	}
	return nil
}
