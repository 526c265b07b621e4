package envoy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/heddle-mesh/heddle/install/parts"
)

// Variable names the environment variable whose value is the path of an Envoy
// to use in place of the pinned one. The commands read it and pass it to Obtain.
const Variable = "HEDDLE_ENVOY"

// Tested is the version that the generated configuration is tested with.
var Tested = Version{1, 40, 0}

// A Version is Envoy's: major, minor, patch.
type Version struct{ Major, Minor, Patch int }

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// Compatible reports whether v takes the configuration made for Tested. Envoy
// removes deprecated fields, and adds new ones, in minor versions.
func (v Version) Compatible() bool { return v.Major == Tested.Major && v.Minor == Tested.Minor }

var (
	errVersion = errors.New("not an Envoy version")
	// REVISION/1.40.0/Clean/RELEASE/BoringSSL, or 1.40.0-dev in the middle.
	versionForm = regexp.MustCompile(`\b[0-9a-f]{7,64}/([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})(?:-[A-Za-z0-9.-]+)?/(?:Clean|Modified)\b`)
)

// ParseVersion finds the version in what "envoy --version" prints, or in the
// version field of /server_info.
func ParseVersion(s string) (Version, error) {
	m := versionForm.FindStringSubmatch(s)
	if m == nil {
		return Version{}, fmt.Errorf("%w: %.80q", errVersion, s)
	}
	var n [3]int
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1]) // at most four digits
	}
	return Version{n[0], n[1], n[2]}, nil
}

// A Program is an Envoy that can be run.
type Program struct {
	Path    string // absolute
	Version Version
}

// Obtain returns the Envoy at path override, or if that is "" the pinned one,
// which is fetched at the first call (see [parts.Ensure]). Progress and warnings
// go to w, which may be nil; an Envoy of another minor version gets a warning.
func Obtain(ctx context.Context, override string, w io.Writer) (Program, error) {
	if w == nil {
		w = io.Discard
	}
	if override == "" {
		dir, err := parts.Ensure(ctx, parts.Envoy, w)
		if err != nil {
			return Program{}, err
		}
		return Program{Path: parts.Envoy.Program(dir, "envoy"), Version: Tested}, nil
	}
	p, err := inspect(ctx, override)
	if err != nil {
		return Program{}, fmt.Errorf("use %s=%s: %w", Variable, override, err)
	}
	if !p.Version.Compatible() {
		fmt.Fprintf(w, "warning: %s=%s is Envoy %s; Heddle is tested with %s\n", Variable, override, p.Version, Tested)
	}
	return p, nil
}

// inspect runs "path --version".
func inspect(ctx context.Context, path string) (Program, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Program{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return Program{}, errors.Unwrap(err) // the caller names the path
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return Program{}, errors.New("not an executable file")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return Program{}, fmt.Errorf("run it with --version: %w", err)
	}
	v, err := ParseVersion(string(out))
	return Program{Path: path, Version: v}, err
}
