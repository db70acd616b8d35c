package console

// Color is an ANSI color.
type Color string

// The colors the commands use.
const (
	Gray    Color = "90"
	Red     Color = "31"
	Green   Color = "32"
	Yellow  Color = "33"
	Blue    Color = "34"
	Magenta Color = "35"
	Cyan    Color = "36"
	Bold    Color = "1"
)

// Paint returns the text in a color when on.
func Paint(on bool, color Color, text string) string {
	if !on {
		return text
	}
	return "\x1b[" + string(color) + "m" + text + "\x1b[0m"
}
