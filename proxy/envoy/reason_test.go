package envoy_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/heddle-mesh/heddle/proxy/envoy"
)

func TestSentence(t *testing.T) {
	for said, want := range map[string]string{
		"cannot create an EDS cluster without an EDS config":                                "cannot create an EDS cluster without an EDS config",
		"Invalid duration: Expected positive duration: goo.gle/debugonly   \nseconds: -1\n": "Invalid duration: Expected positive duration: seconds: -1",
		"goo.gle/debugonly \nname: \"x\"\n: Proto constraint validation failed (BootstrapValidationError.StaticResources: embedded message failed validation | caused by " +
			"StaticResourcesValidationError.Clusters[1]: embedded message failed validation | caused by ClusterValidationError.Name: value length must be at least 1 characters)": "invalid field StaticResources.Clusters[1].Name: value length must be at least 1 characters",
		"Unable to parse JSON as proto (INVALID_ARGUMENT: unexpected EOF): {\n": "Unable to parse JSON as proto (INVALID_ARGUMENT: unexpected EOF)",
		"": "",
	} {
		if got := envoy.Sentence(said); got != want {
			t.Errorf("Sentence(%q)\n = %q\nwant %q", said, got, want)
		}
	}
}

func FuzzSentence(f *testing.F) {
	f.Add("x: Proto constraint validation failed (AValidationError.B: e | caused by CValidationError.D: must)")
	f.Add("Unable to parse JSON as proto (x): {")
	f.Fuzz(func(t *testing.T, said string) {
		got := envoy.Sentence(said)
		if len(got) > 610 || strings.Contains(got, "\n") || utf8.ValidString(said) && !utf8.ValidString(got) {
			t.Errorf("Sentence(%q) = %q", said, got)
		}
	})
}
