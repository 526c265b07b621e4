package jaeger_test

import (
	"strings"
	"testing"

	"github.com/heddle-mesh/heddle/tools/jaeger"
)

func TestVersionIsWhatTheModuleRequires(t *testing.T) {
	want := "require github.com/jaegertracing/jaeger " + jaeger.Version
	if !strings.Contains(string(jaeger.Mod), want) {
		t.Errorf("jaeger.mod lacks %q:\n%s", want, jaeger.Mod)
	}
	if !strings.Contains(string(jaeger.Sum), "github.com/jaegertracing/jaeger "+jaeger.Version+" h1:") {
		t.Error("jaeger.sum has no hash of that version")
	}
}
