package manifest

import (
	"slices"
	"strings"
)

// Suggest is `; did you mean "X"?` for the known word nearest to got, or the list of
// known words where none is near and they are few.
func Suggest(got string, known []string) string {
	known = slices.Sorted(slices.Values(known))
	best, distance := "", 1+max(2, len(got)/3)
	for _, k := range known {
		if d := editDistance(strings.ToLower(got), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	switch {
	case best != "":
		return "; did you mean " + best + "?"
	case len(known) > 0 && len(known) <= 12:
		return "; known here: " + strings.Join(known, ", ")
	}
	return "; remove it"
}

// editDistance is Levenshtein's distance in bytes. Words longer than any field's name
// are not compared: their distance is their length.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
