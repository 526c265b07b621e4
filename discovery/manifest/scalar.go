package manifest

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

func (c cursor) decodeText(v reflect.Value, tag reflect.StructTag) {
	if c.node.Kind != yaml.ScalarNode || c.node.ShortTag() != "!!str" {
		fix := ""
		if c.node.Kind == yaml.ScalarNode && !isNull(c.node) {
			fix = "; write it in quotes"
		}
		c.errorf("want text, found %s%s", kindOf(c.node), fix)
		return
	}
	text := c.node.Value
	rule := tag.Get("is")
	if r, bad := unprintable(text, rule == "free"); bad {
		c.errorf("has the control character %U; remove it", r)
		return
	}
	least, most := limits(tag, 0, maxText)
	allowed := strings.Split(tag.Get("in"), "|")
	switch {
	case len(text) > most:
		c.errorf("has %d bytes; at most %d are allowed", len(text), most)
	case len(text) < least:
		c.errorf("is empty; give a value or leave the field out")
	case tag.Get("in") != "" && !slices.Contains(allowed, text):
		c.errorf("%s is not one of %s%s", quote(text), strings.Join(allowed, ", "), nearest(text, allowed))
	case rule != "":
		if wrong := textRules[rule](text); wrong != "" {
			c.errorf("%s", wrong)
		}
	}
	v.SetString(text)
}

// nearest is the suggestion for a wrong word among a list that the message already has.
func nearest(got string, allowed []string) string {
	if hint := Suggest(got, allowed); strings.HasPrefix(hint, "; did") {
		return hint
	}
	return "; use one of them"
}

func (c cursor) decodeNumber(v reflect.Value, tag reflect.StructTag) {
	least, most := limits(tag, 0, 1<<31-1)
	if v.Kind() == reflect.Float64 {
		f, err := strconv.ParseFloat(c.node.Value, 64)
		if kind := c.node.ShortTag(); err != nil || kind != "!!float" && kind != "!!int" {
			c.errorf("want a number, found %s", kindOf(c.node))
		} else if f < float64(least) || f > float64(most) {
			c.errorf("%s is out of range; give %d to %d", c.node.Value, least, most)
		} else {
			v.SetFloat(f)
		}
		return
	}
	n, err := strconv.ParseInt(c.node.Value, 10, 64)
	if c.node.ShortTag() != "!!int" || err != nil || strconv.FormatInt(n, 10) != c.node.Value {
		c.errorf("want a whole number from %d to %d, found %s", least, most, kindOf(c.node))
		return
	}
	if n < int64(least) || n > int64(most) {
		c.errorf("%d is out of range; give %d to %d", n, least, most)
		return
	}
	if v.CanUint() {
		v.SetUint(uint64(n))
	} else {
		v.SetInt(n)
	}
}

// limits reads the min and max tags.
func limits(tag reflect.StructTag, least, most int) (int, int) {
	if n, err := strconv.Atoi(tag.Get("min")); err == nil {
		least = n
	}
	if n, err := strconv.Atoi(tag.Get("max")); err == nil {
		most = n
	}
	return least, most
}
