//! A story as a line of a table (RFC 4180).

use policy::record::Story;

use crate::audit::find;

/// The first line.
pub(super) const HEAD: &str = "seq,id,at,kind,group,conversation,principal,tool,args,decision,rules,labels,\
approval,answer,answered_by,reason,outcome,detail,closed_at,hash,prev\r\n";

/// The line of a story.
pub(super) fn line(story: &Story) -> String {
    let answer = story.answer.as_ref();
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    let args = if story.args.is_null() {
        String::new()
    } else {
        story.args.to_string()
    };
    let cells = [
        story.seq.to_string(),
        story.id.to_string(),
        story.at.to_string(),
        find::kind(story).to_owned(),
        story.group.clone(),
        story.conversation.clone(),
        story.principal.clone(),
        story.tool.clone(),
        args,
        story.decision.as_str().to_owned(),
        story.rules.join("; "),
        story.labels.join("; "),
        story
            .approval
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        answer
            .map(|answer| answer.state.as_str().to_owned())
            .unwrap_or_default(),
        text(answer.and_then(|answer| answer.by.as_ref())),
        text(answer.and_then(|answer| answer.reason.as_ref())),
        story.outcome.as_str().to_owned(),
        text(story.detail.as_ref()),
        story.closed_at.map(|at| at.to_string()).unwrap_or_default(),
        story.hash.clone(),
        story.prev.clone(),
    ];
    let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
    cells.join(",") + "\r\n"
}

/// A cell that no spreadsheet takes for a formula.
fn quoted(cell: &str) -> String {
    let formula = cell
        .trim_start()
        .starts_with(['=', '+', '-', '@', '\t', '\r', '|', '%'])
        || cell.starts_with(['\t', '\r', '\n']);
    let quote = if formula { "'" } else { "" };
    format!("\"{quote}{}\"", cell.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_or_ends_its_line() {
        for (cell, safe) in [
            ("plain", "\"plain\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            (
                "=HYPERLINK(\"http://x\")",
                "\"'=HYPERLINK(\"\"http://x\"\")\"",
            ),
            ("  @SUM(A1)", "\"'  @SUM(A1)\""),
            ("-1+1", "\"'-1+1\""),
            ("\t=1", "\"'\t=1\""),
            ("a\r\nb", "\"a\r\nb\""),
        ] {
            assert_eq!(quoted(cell), safe);
        }
    }

    #[test]
    fn a_line_has_as_many_cells_as_the_head() {
        let story = crate::audit::export::tests::story();
        let cells = line(&story).trim_end().split("\",\"").count();
        assert_eq!(cells, HEAD.trim_end().split(',').count());
    }
}
