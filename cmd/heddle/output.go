package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/heddle-mesh/heddle/discovery/manifest"
)

// table writes aligned columns, the header first.
func table(w io.Writer, header []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, strings.Join(header, "\t"))
	for _, row := range rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}

// list is how every list is written in JSON.
type list[T any] struct {
	Items []T `json:"items"`
}

// writeList writes items as {"items": [...]}, in JSON or YAML.
func writeList[T any](w io.Writer, format string, items []T) error {
	if items == nil {
		items = []T{}
	}
	return writeAs(w, format, list[T]{items})
}

// writeAs writes a value in JSON, indented, or in YAML.
func writeAs(w io.Writer, format string, v any) error {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		return err
	}
	out := buffer.Bytes()
	if format == "yaml" {
		var err error
		if out, err = manifest.YAML(out); err != nil {
			return err
		}
	}
	_, err := w.Write(out)
	return err
}

// age is how long ago t was, short.
func age(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := max(now.Sub(t), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// orDash is s, or a dash so that a column is never empty.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
