package local

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/heddle-mesh/heddle/identity/statefile/smalldisk"
)

// TestLogOnFullDisk lets a process write more than its disk takes. It is not ended by
// that, and the log tells how much is lost.
func TestLogOnFullDisk(t *testing.T) {
	smalldisk.Run(t, 64<<10, func(t *testing.T, disk *smalldisk.Disk) {
		path := filepath.Join(disk.Dir, "logs", "a.log")
		log := newLogFile(path)
		fmt.Fprintln(log, "first")
		disk.Fill()
		cmd := exec.Command("head", "-c", "1000000", "/dev/zero")
		cmd.Stdout = log
		if err := cmd.Run(); err != nil {
			t.Errorf("the process that writes: %v", err)
		}
		disk.Free()
		fmt.Fprintln(log, "last")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		told := regexp.MustCompile(`^first\n(\x00*)\nheddle: (\d+) bytes of this log are lost: write .*/a\.log: no space left on device\nlast\n$`)
		if m := told.FindStringSubmatch(string(text)); m == nil || fmt.Sprint(1_000_000-len(m[1])) != m[2] {
			t.Errorf("the log has %q", strings.ReplaceAll(string(text), "\x00", ""))
		}
	})
}
