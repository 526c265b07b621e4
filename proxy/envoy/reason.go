package envoy

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// maxReason limits a reason, in bytes.
const maxReason = 600

// A logEntry is one message of Envoy's log.
type logEntry struct{ level, message string }

// entryStart begins a message in Envoy's default format; it may have more lines.
var entryStart = regexp.MustCompile(`(?m)^\[\d{4}-\d\d-\d\d [0-9:.]+\]\[\d+\]\[(\w+)\]\[\w+\] (?:\[[^\]\n]*\] )?`)

// entries splits a log in Envoy's default format, or after the bootstrap has
// been read in the JSON format that package proxy/bootstrap sets.
func entries(log string) []logEntry {
	var found []logEntry
	starts := entryStart.FindAllStringSubmatchIndex(log, -1)
	for i, at := range starts {
		end := len(log)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		found = append(found, logEntry{level: log[at[2]:at[3]], message: log[at[1]:end]})
	}
	for line := range strings.Lines(log) {
		var e struct{ Level, Msg string }
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &e) == nil && e.Level != "" {
			found = append(found, logEntry{level: e.Level, message: e.Msg})
		}
	}
	return found
}

// reduce finds in the log of "envoy --mode validate" why it refused the config
// in file, and the first complaint about a deprecated field; "" for none.
func reduce(log, file string) (reason, deprecated string) {
	for _, e := range entries(log) {
		switch {
		case e.level == "critical" && reason == "":
			_, said, found := strings.Cut(e.message, fmt.Sprintf("error initializing configuration '%s': ", file))
			if !found {
				said = e.message
			}
			reason = Sentence(said)
		case e.level == "warning" && deprecated == "" && strings.Contains(e.message, "eprecated"):
			deprecated, _, _ = strings.Cut(Sentence(e.message), " This configuration will be removed")
		}
	}
	return reason, deprecated
}

var (
	// protobuf marks text that nobody shall parse, and varies the white space.
	debugMark  = regexp.MustCompile(`goo\.gle/debug\w+\s*`)
	constraint = regexp.MustCompile(`Proto constraint validation failed \((.*)\)`)
	notJSON    = regexp.MustCompile(`^(Unable to parse JSON as proto \([^{]*\)): \{`)
)

// Sentence reduces an error of Envoy's, of a log or of the error_detail of a
// refused (NACKed) resource, to the sentence that matters, on one line: Envoy
// quotes whole messages around it.
func Sentence(said string) string {
	said = strings.Join(strings.Fields(debugMark.ReplaceAllString(said, "")), " ")
	if m := constraint.FindStringSubmatch(said); m != nil {
		// Outer messages come first, each "embedded message failed validation".
		causes := strings.Split(m[1], " | caused by ")
		for i, cause := range causes {
			name, what, _ := strings.Cut(cause, ": ")
			if i < len(causes)-1 {
				what = ""
			} else if what != "" {
				what = ": " + what
			}
			_, field, ok := strings.Cut(name, "ValidationError.")
			if !ok {
				field = name
			}
			causes[i] = field + what
		}
		return shorten("invalid field " + strings.Join(causes, "."))
	}
	if m := notJSON.FindStringSubmatch(said); m != nil {
		return shorten(m[1])
	}
	return shorten(said)
}

func shorten(s string) string {
	if len(s) > maxReason {
		return strings.ToValidUTF8(s[:maxReason], "") + "…"
	}
	return s
}
